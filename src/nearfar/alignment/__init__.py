"""Language models and preferences: policies, their scores of responses, and training that raises some over others."""
