"""What agents may use beside their words."""
