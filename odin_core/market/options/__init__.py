"""What prices of options say: chains, volatilities, open interest."""
