"""What the master does with processes: it keeps the wanted number of workers alive, on the code that loads."""
