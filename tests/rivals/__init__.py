"""Agreement with other libraries, where they are installed."""
