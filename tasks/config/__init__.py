"""params.yaml: schema, kinds by name, the words of its errors, and seeds."""
