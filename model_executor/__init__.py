"""Everything that touches the device: runners, attention, layers, models, frontends, vocoders."""
