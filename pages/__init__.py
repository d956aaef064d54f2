"""Pages to look at in a browser: the leaderboard of ranked pictures, the report of a run, the summary of a pipeline."""
