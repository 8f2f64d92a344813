"""Published data sets as sources of clips, for those who have the data."""
