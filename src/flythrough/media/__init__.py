"""Photos and videos in and out, and small pictures for people. Imports no torch."""
