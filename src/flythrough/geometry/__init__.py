"""What is known about the shape of a scene: the Geometry value, estimators, edges, alignment."""
