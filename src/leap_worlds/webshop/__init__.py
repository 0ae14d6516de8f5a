"""WebShop: shopping in a catalogue of Amazon products (Yao et al. 2022), without a server, a browser or Java."""
