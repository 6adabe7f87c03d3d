"""The model in its roles: base, student, teacher, samplers, and how tokens reach them."""
