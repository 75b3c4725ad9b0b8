"""Unit tests of what is pure in the harness: python3 -m unittest discover -s vm-tests/lab -t vm-tests/lab"""
