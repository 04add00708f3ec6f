"""The plug-ins that ship with w2s. They are loaded like everybody's: nothing imports them (`config.plugins.SHIPPED`)."""
