"""What is known of companies besides prices: corporate actions and fundamentals, each from when it was known."""
