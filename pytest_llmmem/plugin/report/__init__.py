"""After a test: its reports, its record and its baseline; after the session: the files."""
