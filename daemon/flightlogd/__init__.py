"""The daemon of flightlog: recorder and materializer."""
