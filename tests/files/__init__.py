"""What reading files and other sources of examples promises."""
