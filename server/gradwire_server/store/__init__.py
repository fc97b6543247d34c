"""The store: tables, and the database that reads and writes them."""
