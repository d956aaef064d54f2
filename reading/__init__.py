"""Other people's submissions, read: text files line by line, dumps, what a post is, where its picture lies."""
