"""Scene memory: depth maps become broken meshes that are rendered from other cameras."""
