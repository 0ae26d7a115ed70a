"""What the shape of the source itself promises."""
