"""Every catalogued attack keeps the same laws."""
