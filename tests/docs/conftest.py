from support.emulated import emulated, emulator  # noqa: F401
