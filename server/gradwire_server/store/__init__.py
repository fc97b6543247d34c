"""The store: the tables and the database that reads and writes them."""
