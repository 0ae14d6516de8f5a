"""The environments that come with leap: ALFWorld, WebShop and InterCode, and the sandboxes that InterCode runs in."""
