"""Files of the built-in laws."""
