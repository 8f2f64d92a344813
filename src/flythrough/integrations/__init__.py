"""Other libraries' ways to call Flythrough."""
