"""Where code for W&B's public API looks for it: `flightlog.apis.public`."""
