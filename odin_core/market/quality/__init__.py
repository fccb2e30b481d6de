"""What is wrong with the bars of a session, and the report of it."""
