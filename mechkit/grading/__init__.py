"""Grading: what is this submission worth?"""
