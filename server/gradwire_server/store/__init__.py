"""The store: the tables, and access to the database that contains them."""
