"""What every data module stands on."""
