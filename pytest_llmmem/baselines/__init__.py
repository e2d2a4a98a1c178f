"""What tests used before: kept in a file that is reviewed, compared with every run, and followed over many."""
