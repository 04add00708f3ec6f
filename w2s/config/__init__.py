"""The configuration: fields, loading, and tables of methods."""
