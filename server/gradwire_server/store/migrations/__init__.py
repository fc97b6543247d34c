"""How the tables came to be what they are, a step for each change; Alembic takes a database through those it lacks."""
