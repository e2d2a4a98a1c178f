"""After a test: its reports, its record, its diagnosis and its baseline; after the session: the files."""
