"""What each head looks at."""
