"""The on-disk and on-wire formats of flightlog, and what is derived from them."""
