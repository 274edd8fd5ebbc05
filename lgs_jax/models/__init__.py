"""Models: encoder, decoder, scene heads, autoencoder. Modules may import their siblings."""
