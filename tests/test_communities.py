"""The communities that a classifier of somebody's own submissions is to tell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from communities import classification_table, of_communities


def own_table() -> pd.DataFrame:
    names = ["cats"] * 6 + ["Dogs"] * 5 + ["birds"] * 4 + ["fish"] * 1
    submissions = pd.DataFrame({"image_id": range(16), "subreddit": pd.Categorical(names)})
    submissions = pd.concat([submissions, submissions.head(1).assign(subreddit="fish")], ignore_index=True)
    ids = pd.Series(np.arange(16) + 100, index=range(16))
    table, left_out = classification_table(submissions.astype({"subreddit": "category"}), ids, 0.5, own=True)
    assert left_out == {"ties": 1, "smaller shares": 0} and len(table) == 15
    return table


def test_all_communities_of_own_submissions_are_classes():
    table = own_table()
    assert table["subreddit"].value_counts().to_dict() == {"cats": 5, "Dogs": 5, "birds": 4, "fish": 1}
    assert table.groupby("subreddit")["label"].first().to_dict() == {"Dogs": 0, "birds": 1, "cats": 2, "fish": 3}


def test_the_largest_with_enough_pictures_that_are_here_are_told():
    table = own_table()
    here = (table["subreddit"] != "cats") | (table["img_id"] < 104)  # of the five cats three have a picture
    kept, counts = of_communities(table, here.to_numpy(), most=2, fewest=2)
    assert counts.to_dict() == {"Dogs": 5, "birds": 4, "cats": 3, "fish": 1}
    assert kept.groupby("label")["subreddit"].agg(["first", "size"]).to_numpy().tolist() == [["Dogs", 5], ["birds", 4]]
    assert of_communities(table, here.to_numpy(), most=5, fewest=6)[0].empty
