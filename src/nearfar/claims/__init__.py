"""Running the experiments of recipes, judging their claims, and the scoreboard."""
