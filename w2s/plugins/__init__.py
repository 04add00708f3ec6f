"""The plug-ins that ship with w2s. Nothing imports them: they are loaded like any other.

`config.plugins.SHIPPED` lists them.
"""
