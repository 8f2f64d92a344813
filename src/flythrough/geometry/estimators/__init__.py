"""Estimators without a network (exact, given, flat), and the choice between all of them."""
