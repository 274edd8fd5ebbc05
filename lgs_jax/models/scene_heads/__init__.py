"""Scene heads: from the decoder's maps, one per view, to a scene that `render` understands."""
