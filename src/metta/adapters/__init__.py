"""Metta's worlds behind the interfaces of other libraries; each module here imports its library, and only that one."""
