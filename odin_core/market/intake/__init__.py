"""Bringing data in: files and vendors' replies become pages, pages become tables; live taps; is it up to date?"""
