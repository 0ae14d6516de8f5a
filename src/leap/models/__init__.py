"""Language models behind one small interface. Heavy libraries are imported by the modules that need them, not here."""
