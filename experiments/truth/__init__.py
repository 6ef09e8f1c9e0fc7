"""What a posterior family is worth: exactly where that can be known, between bounds where it cannot."""
