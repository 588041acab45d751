"""Several processes of one role: what one does not do, another does, and nothing is done twice."""
