"""A thread pool with a bounded queue: what does not fit is refused at once (503), and errors become HTTP errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException

from tasks.labelling.http import LabellingError
from tasks.serving.players import Refused
from tasks.workspace.services import StackError

T = TypeVar("T")


class BoundedPool:
    """Threads with a queue of bounded length; what its callers get wrong becomes an HTTP error."""

    def __init__(self, threads: int, most: int) -> None:
        """most: calls that run or wait at once; the next is told to come again (503)."""
        self._pool, self._most, self._waiting = ThreadPoolExecutor(threads), most, 0

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, called in one of the threads."""
        if self._waiting >= self._most:
            raise HTTPException(503, "Too many play at once; try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except Refused as error:
            raise HTTPException(409, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        except FileNotFoundError as error:
            raise HTTPException(503, "There is no model to play against now.") from error
        except (StackError, LabellingError) as error:
            raise HTTPException(503, f"Label Studio did not take it ({type(error).__name__}); try again.") from error
        finally:
            self._waiting -= 1
