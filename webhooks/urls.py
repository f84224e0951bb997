from django.urls import path

from webhooks.views import receive

urlpatterns = [path("<slug:provider>/<uuid:endpoint_uuid>/", receive, name="webhook-receive")]
