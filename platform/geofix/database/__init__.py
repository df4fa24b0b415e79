"""The database: schema, SQL files, connections and every query of the product."""
